"""Commands for people: look at jobs and runs, follow them, stop them, write a report."""
