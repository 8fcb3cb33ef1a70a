"""What every room needs and no room owns: clock, durable files, redaction. Standard library only."""
