"""What surrounds a cell: its children, its device, its packages."""
