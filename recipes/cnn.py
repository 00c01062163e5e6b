"""Trains a convolutional image classifier and exports it for serving.

  python -m recipes.cnn                      scikit-learn's handwritten digits: the reference run
  python -m recipes.cnn --dry-run            every stage on a few examples, in well under a minute
  python -m recipes.cnn --tune 10            searches dense width, dropout and learning rate first
  python -m recipes.cnn --data fashion_mnist --augment shift-flip --epochs 20 --batch-size 128
  python -m recipes.cnn --data path/to/folder --image-size 64 64
"""

from functools import partial

from recipes.common import flags

FAMILY = "cnn"
BATCH_SIZE = 32
PATIENCE = 15  # Epochs without a better validation loss.
TRIAL_EPOCHS = 10
# Three blocks, which fit images from 8x8 on, normalised (Ioffe and Szegedy 2015) and with dropout (Srivastava 2014).
ARCHITECTURE = {"filters": (32, 64, 128), "padding": "same", "batch_normalization": True}
CHOICES = {"units": 128, "dropout_rate": 0.4}


def search_space(hp):
    return {
        "units": hp.Choice("units", (64, 128, 256)),
        "dropout_rate": hp.Float("dropout_rate", 0.0, 0.6, step=0.1),
        "learning_rate": hp.Float("learning_rate", 3e-4, 1e-2, sampling="log"),
    }


def main(argv=None):
    parser = flags.parser(__doc__, FAMILY, epochs=40, batch_size=BATCH_SIZE, learning_rate=2e-3)
    flags.add_image_flags(parser)
    args = parser.parse_args(argv)

    from recipes.common.quiet import import_tensorflow

    import_tensorflow()
    import keras

    from recipes.common import devices, images, report, runs, served, tune
    from recipes.common.fit import cosine_schedule, fit
    from recipes.common.parallel import DataParallel
    from zoo import build_cnn
    from zoo.serving import export_image_classifier

    strategy = devices.strategy(args.replicas, args.batch_size)
    keras.utils.set_random_seed(args.seed)
    keras.config.set_dtype_policy(args.precision)
    with runs.start(args) as run:
        args = run.args  # A dry run's are smaller.
        data = images.load(args.data, image_size=args.image_size, limit=args.limit, quick=args.dry_run)
        augment = images.AUGMENTATIONS[args.augment]
        steps = data.train.steps(args.batch_size)
        run.note(data=data.describe(), devices=devices.describe(strategy))

        def build(units, dropout_rate, learning_rate=args.learning_rate, epochs=args.epochs):
            rate = cosine_schedule(args, learning_rate, epochs, steps, reference_batch_size=BATCH_SIZE)
            with strategy.scope():
                cnn = build_cnn(
                    data.image_shape, len(data.class_names), units=(units,), dropout_rate=dropout_rate, **ARCHITECTURE
                )
                model = DataParallel(cnn)
                model.compile(
                    keras.optimizers.Adam(rate),
                    loss="sparse_categorical_crossentropy",
                    weighted_metrics=["accuracy"],
                    steps_per_execution=devices.steps_per_execution(strategy, steps),
                )
            return model

        choices, tuning = CHOICES, None
        if args.tune:
            trial = partial(build, epochs=TRIAL_EPOCHS)
            tuning = tune.search(
                search_space, trial, data.train, data.validation, run, epochs=TRIAL_EPOCHS, augment=augment
            )
            choices = tuning["best"]
        model = build(**choices)
        training = fit(model, data.train, data.validation, run, patience=PATIENCE, augment=augment)

        scores, probabilities = report.evaluate(model, data.test, data.class_names, args.batch_size)
        print(f"\nTest accuracy {scores['accuracy']:.4f}, loss {scores['loss']:.4f}\n\n{report.table(scores)}\n")
        report.plot_classifier(run, training["history"], scores, data.test, probabilities, data.class_names)

        served_scores = {}
        version = export_image_classifier(
            model.model,
            data.class_names,
            args.export_dir,
            examples=data.test.first(32),
            check=lambda folder: served_scores.update(
                served.check(folder, data.test, data.class_names, scores, probabilities)
            ),
        )
        facts = {"model": FAMILY, "data": data.name, "devices": devices.describe(strategy), "export": str(version)}
        report.write(run, trained=scores, served=served_scores, training=training, tuning=tuning, facts=facts)
        print(f"Report: {run.folder / 'report.md'}. Export: {version}.")


if __name__ == "__main__":
    flags.command_line(main)
