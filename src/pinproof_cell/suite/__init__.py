"""The attention suite: cases, their inputs, the children that are asked them."""
