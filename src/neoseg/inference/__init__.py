"""From a trained network and an image to a mask on the image's own grid."""
