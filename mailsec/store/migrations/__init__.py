"""The schema's history, one Alembic revision per schema number ("0001", "0002", …), packaged with mailsec.

The rule for every revision: **schema N serves code N-1**. While a cluster is upgraded, old workers go on with the new schema. So
a revision only adds: new tables, new columns that have a server default or may be null, new indexes. It never renames, drops or
retypes in the same release in which the code stops using something; that comes one schema later. A new column of an
authenticated table is not covered by the row's MAC (old code could not write it), so what decides goes into a new table.

Code refuses a schema older than its own (`mailsec db upgrade` brings it up) and one newer than its own by more than one.
"""

from __future__ import annotations

from importlib.resources import files

from sqlalchemy import Connection

__all__ = ["migrate"]


def migrate(connection: Connection) -> None:
    """Bring the database of `connection` to the newest schema, within its transaction."""
    # Alembic takes a quarter of a second to import, and is needed by `db init` and `db upgrade` only.
    from alembic import command
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(files(__name__)).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")
