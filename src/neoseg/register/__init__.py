"""Registration: a start from moments, affine by mutual information, free-form deformation, and the transforms."""
