"""Files of slides, documents and results, wherever they are: on disk, in S3, GCS or Azure, on web servers."""
