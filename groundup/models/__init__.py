"""Model families composed from `groundup.nn`, their presets, and the folder they are kept in."""
