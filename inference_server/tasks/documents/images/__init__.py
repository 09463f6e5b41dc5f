"""Pictures: pages of files of pixels, and what their pixels tell: ink, spots, margins, colours, how good they are."""
