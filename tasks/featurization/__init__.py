"""From a partner's files to hashed fingerprints, folds, endpoints and labels."""
