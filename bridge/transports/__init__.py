"""Where jobs come from and results go, as the settings name it: one module for each kind of queue; `opening` picks among them."""
