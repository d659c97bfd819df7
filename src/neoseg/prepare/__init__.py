"""From images as scanned to the array a network sees: one step a file, each with what is needed to undo it."""
