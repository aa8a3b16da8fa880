"""The host's ports, which systemd holds: the units, and the program that hands the sockets on."""
