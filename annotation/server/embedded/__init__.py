"""What runs inside the server's own virtual environment; nothing here imports Plumbline."""
