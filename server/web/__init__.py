"""A page on the loopback interface where a person decides on what waits."""
