"""What devices say, from the broker into the database: each message once, in batches, acknowledged after the commit."""
