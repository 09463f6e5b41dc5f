"""What the machine or platform that we run on tells and asks: protection while we work, and notice before it goes."""
