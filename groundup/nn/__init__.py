"""The building blocks: attention, masks, positions, norms, feed-forward, block, cache, init."""
