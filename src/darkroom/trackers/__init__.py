"""Where a training's curves are shown while it runs, beside TensorBoard; none of them changes what it makes."""
