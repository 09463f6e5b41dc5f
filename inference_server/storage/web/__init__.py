"""Files on web servers: requests, what answers say of a file, and a store of such files."""
