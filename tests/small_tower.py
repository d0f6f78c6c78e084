"""A tower small enough that a whole step of training takes milliseconds."""

WORDS, FRAMES, SIZE, VOCABULARY = 12, 4, 32, 60
TOWER = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {
        "context_length": WORDS,
        "vocab_size": VOCABULARY,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
