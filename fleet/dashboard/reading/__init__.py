"""What each page reads from the store, in one transaction, as rows and plain values; no wording and no HTML here."""
