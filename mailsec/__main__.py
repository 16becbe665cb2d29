"""`python -m mailsec` is the command `mailsec`."""

from mailsec.app.cli import main

if __name__ == "__main__":
    main()
