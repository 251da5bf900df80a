"""convnet-analyzer: how a trained ConvNet behaves in the immediate neighbourhood of an image."""
