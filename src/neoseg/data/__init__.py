"""Cases, layouts, checks, folds, the store of prepared cases, and patches."""
