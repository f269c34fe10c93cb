"""The S3 server: versitygw, with a folder behind it."""
