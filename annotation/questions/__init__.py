"""What labellers are asked: each question is one object in one table."""
