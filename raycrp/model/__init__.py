"""T5 backbones: tokenizers, encoding, decoding and labelling; no Ray."""
