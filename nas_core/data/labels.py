"""Class numbers: what masks hold, networks are built for and predictions are written in.

They are uint8 everywhere: 0 to 254 for classes, 255 for pixels that belong to none.
"""

MAX_CLASSES = 255
IGNORED = 255
"""Label of ignored pixels, in the data sets that do not bring one of their own."""
