"""From the repository to engines that are warm and checked: in which order, on which devices, tried on what, within what memory."""
