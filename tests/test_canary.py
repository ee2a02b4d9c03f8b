from __future__ import annotations

import io

import pytest
from PIL import Image

from dsocr_batch.engines.canary import HEIGHT_PX, WIDTH_PX, canary_image
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.profiles import PROFILES, VisionMode


@pytest.mark.parametrize("vision_mode", VisionMode)
def test_the_trial_page_has_the_views_of_its_mode(vision_mode: VisionMode) -> None:
    image = canary_image(ImageSpec(form=ImageForm.VIEWS, vision_mode=vision_mode))
    assert image.data.nbytes == PROFILES[vision_mode].views_px(image.grid), "it has no colour"
    assert bool(image.grid.count) == (vision_mode is VisionMode.GUNDAM), "Gundam cuts it"


@pytest.mark.parametrize("form", [ImageForm.PNG, ImageForm.JPEG])
def test_the_trial_page_is_black_text_on_white(form: ImageForm) -> None:
    image = canary_image(ImageSpec(form=form, max_side_px=1024))
    with Image.open(io.BytesIO(image.data)) as page:
        assert page.size == (WIDTH_PX, HEIGHT_PX)
        dark = page.convert("L").histogram()[:64]
    assert 0.01 < sum(dark) / (WIDTH_PX * HEIGHT_PX) < 0.2
