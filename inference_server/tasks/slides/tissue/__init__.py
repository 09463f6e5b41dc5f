"""Where a slide has tissue, and how good it is there: masks and values of cells of about 8 µm."""
