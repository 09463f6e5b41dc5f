"""What may be found on a slide: by the built-in analysis, and by each kind of tile model."""
