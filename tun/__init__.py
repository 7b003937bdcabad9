"""Linux plumbing: TUN devices, netlink, network namespaces. Knows nothing of the stack above it."""
