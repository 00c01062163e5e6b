"""Packages of peers that need help to be imported."""


def torchvision_and_timm():
    """Returns the two packages; raises ImportError where one is not installed."""
    import torch

    try:
        import torchvision
    except RuntimeError as error:  # Made for another build of PyTorch, it lacks its compiled operators; no net has any.
        if "nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision

        torchvision.kept_ = library  # The operators live as long as it.
    import timm

    return torchvision, timm
