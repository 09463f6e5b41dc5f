"""What messages come wrapped in: bytes to what a system's messages read."""
