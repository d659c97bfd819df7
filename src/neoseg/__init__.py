"""neoseg: U-shaped networks for medical image segmentation, and a pipeline for brain lesions of the newborn."""

__version__ = "0.1.0"
