# The host in service/: `docker build -t continuum .`, or see compose.yaml for two nodes and a PostgreSQL.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY continuum continuum
COPY migrations migrations
COPY tools/wheel_hook.py tools/wheel_hook.py
RUN python -m venv /opt/continuum \
 && /opt/continuum/bin/pip install --no-cache-dir --constraint constraints.txt ".[service]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 continuum
COPY --from=build /opt/continuum /opt/continuum
WORKDIR /app
COPY service service
USER continuum
ENV PATH=/opt/continuum/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8000
# Longer than CONTINUUM_DRAIN_TIMEOUT (10 s): what is still open then is cut. One process per container: each has an
# address of its own, at which the others reach it.
CMD ["uvicorn", "service.app:app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "15"]
