"""Classes with the names that integration guides use, over the gateways of this process."""
