"""What readers build from: projections, mixers, feed-forward parts, heads, and what lineages share."""
