"""Where the gateway keeps tasks, keys and files: SQLite or Postgres, and a folder."""
