"""The commands, one module for each subject; `app.cli.COMMANDS` names them."""
