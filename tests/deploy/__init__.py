"""The chart and the image, as far as they can be tried without a cluster: `make deploy` runs these, `make test` does not."""
