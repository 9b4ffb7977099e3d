"""The `longvid` command: `main.py` and one file per subcommand; importing them loads neither torch nor diffusers."""
