"""The words: frozen values that every floor passes around and none changes."""
