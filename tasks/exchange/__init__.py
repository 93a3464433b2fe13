"""Signed, write-once messages between sites, and the content-addressed store of blobs."""
