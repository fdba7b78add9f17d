"""What the tiny configs of region detectors on a ResNet share: composed scenes of 128 px, enlarged to 192 px.

Training sees the boxes of base classes only; 60 held-out scenes with all classes validate.
"""

_base_ = "train.py"

model = dict(
    vocabulary=[
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
        "stop sign", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "pig",
        "rabbit", "lion", "tiger", "monkey", "penguin", "fish", "whale", "turtle", "butterfly", "snail", "frog",
        "owl", "bee", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "sports ball", "kite",
        "skateboard", "bottle", "wine glass", "cup", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
        "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "strawberry", "grapes", "watermelon",
        "lemon", "mushroom", "chair", "couch", "potted plant", "bed", "toilet", "tv", "laptop", "mouse", "keyboard",
        "cell phone", "book", "clock", "vase", "scissors", "teddy bear", "toothbrush", "tree", "flower", "cactus",
        "crown", "guitar", "drum", "key", "hammer", "light bulb", "rocket", "star", "helicopter",
    ],
)  # fmt: skip

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="SeededSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="SceneBoxes",
            count=100_000,
            split="train",
            first_seed=2_000_000,
            base_only=True,
            pipeline=[
                dict(type="LoadScenePicture"),
                dict(type="LoadSceneBoxes"),
                dict(type="mmdet.Resize", scale=(192, 192)),
                dict(type="mmdet.RandomFlip", prob=0.5),
                dict(type="mmdet.PhotoMetricDistortion"),
                dict(type="mmdet.PackDetInputs"),
            ],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SceneBoxes",
        count=60,
        first_seed=3_000_000,
        pipeline=[
            dict(type="LoadScenePicture"),
            dict(type="mmdet.Resize", scale=(192, 192)),
            dict(type="LoadSceneBoxes"),
            dict(
                type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
            ),
        ],
    ),
)
val_evaluator = dict(type="OpenVocabAP")
val_cfg = dict(type="ValLoop")
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"tower": dict(lr_mult=0.03)}),
    clip_grad=dict(max_norm=5.0),
)
