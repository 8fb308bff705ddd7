"""The options of each kind of objective, each with its own checks. Imports no torch: the configuration reads them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from vlc.common.errors import UserError, require


@dataclass(frozen=True)
class Surroundings:
    """The other settings that the checks of options look at.

    kinds: the objectives of the same task.
    weight: the weight of the objective's loss.
    per_device: examples in a batch of one device.
    max_text_len: tokens of a text, with [CLS] and [SEP].
    max_image_len: patches that training keeps of an image; -1: all.
    """

    kinds: Collection[str]
    weight: float
    is_pretrain: bool
    mask_ratio: float
    per_device: int
    max_text_len: int
    max_image_len: int


@dataclass(frozen=True)
class Options:
    """Options of an objective that has none; the others derive from it."""

    def check_values(self) -> None:
        """Raise UserError for values that are never valid."""

    def check(self, others: Surroundings) -> None:
        """Raise UserError for values that an active objective cannot work with."""


def require_all_patches(named: str, others: Surroundings) -> None:
    """Raise UserError where patches under a box may be dropped. named: what reads them."""
    if others.max_image_len != -1:
        raise UserError(
            f"{named} reads all patches under a box, and max_image_len={others.max_image_len} drops some: pass "
            "max_image_len=-1"
        )


@dataclass(frozen=True)
class MLMOptions(Options):
    """probability: share of the tokens that are hidden.

    whole_words: hide whole words, drawn as the published code draws them.
    word_by_word: hide whole words, each drawn by itself, as VL-BERT draws them.
    one_segment: the share of texts of two segments in which words of one segment alone are hidden, so that a sentence is
        read beside its whole translation.
    """

    probability: float = 0.15
    whole_words: bool = False
    word_by_word: bool = False
    one_segment: float = 0.0

    def check_values(self) -> None:
        require(0 < self.probability < 1, "mlm_prob", self.probability, "a share between 0 and 1")
        require(0 <= self.one_segment <= 1, "mlm.one_segment", self.one_segment, "a share from 0 to 1")
        if self.whole_words and self.word_by_word:
            raise UserError(
                "whole_word_masking=True and mlm.word_by_word=True draw words in two ways: pass one of them"
            )


@dataclass(frozen=True)
class MAEOptions(Options):
    """weight: a further weight of the reconstruction loss."""

    weight: float = 1.0

    def check_values(self) -> None:
        require(self.weight >= 0, "mae_weight", self.weight, "a weight of 0 or more")

    def check(self, others: Surroundings) -> None:
        if not (others.is_pretrain and others.mask_ratio):
            raise UserError(
                f"loss_names.mae={others.weight} needs dropped patches, but is_pretrain={others.is_pretrain} and "
                f"mask_ratio={others.mask_ratio} drop none"
            )


@dataclass(frozen=True)
class ITMOptions(Options):
    """alignment_weight: weight of word-patch alignment, 0 = off.

    wrong_images: number of wrong images for each text.
    source: where they come from: batch or dataset.
    """

    alignment_weight: float = 0.1
    wrong_images: int = 1
    source: Literal["batch", "dataset"] = "batch"

    def check_values(self) -> None:
        require(self.alignment_weight >= 0, "wpa_weight", self.alignment_weight, "a weight of 0 or more")
        require(self.wrong_images >= 0, "draw_false_image", self.wrong_images, "0 or more")
        require(self.source in ("batch", "dataset"), "false_image_source", self.source, "batch or dataset")
        if self.wrong_images > 1:
            raise UserError(
                f"draw_false_image={self.wrong_images}, but itm, as published, uses one wrong image for each sample: pass "
                "draw_false_image=1"
            )

    def check(self, others: Surroundings) -> None:
        if self.wrong_images == 0:
            raise UserError("loss_names.itm needs wrong images, but draw_false_image=0: pass draw_false_image=1")
        if self.source == "batch" and others.per_device == 1:
            raise UserError(
                "loss_names.itm takes wrong images from the batch, but per_gpu_batchsize=1: raise it, or pass "
                "false_image_source=dataset"
            )


@dataclass(frozen=True)
class TTMOptions(Options):
    """image: whether the image stands beside the two texts, where there is one."""

    image: bool = True


@dataclass(frozen=True)
class TTCOptions(Options):
    """temperature: from which the learned temperature starts."""

    temperature: float = 0.07

    def check_values(self) -> None:
        require(self.temperature > 0, "ttc.temperature", self.temperature, "a number above 0")


@dataclass(frozen=True)
class ITCOptions(Options):
    """hard_negatives: the other objectives train on the wrong images and texts of the batch that contrast finds alike."""

    hard_negatives: bool = False


@dataclass(frozen=True)
class AnswersOptions(Options):
    """num_answers: size of the head.

    loss: bce judges each answer apart; cross_entropy lets the answers compete.
    pool: what the answer is classified from: the pooled feature (cls), or the state of a [MASK] behind the text (mask).
    described_by: batch fields that are copied into the records where the data have them.
    """

    num_answers: int = 3129
    loss: Literal["bce", "cross_entropy"] = "bce"
    pool: Literal["cls", "mask"] = "cls"
    described_by: tuple[str, ...] = ("question_type", "answer_type")

    def check_values(self) -> None:
        require(self.num_answers > 0, "vqav2_label_size", self.num_answers, "a number of answers")
        require(self.loss in ("bce", "cross_entropy"), "answers.loss", self.loss, "bce or cross_entropy")
        require(self.pool in ("cls", "mask"), "answers.pool", self.pool, "cls or mask")

    def check(self, others: Surroundings) -> None:
        if self.pool == "mask" and others.max_text_len < 5:
            raise UserError(
                f"answers.pool=mask puts [MASK] and [SEP] behind the text, for which max_text_len={others.max_text_len} "
                "has no room: pass max_text_len=5 or more"
            )


@dataclass(frozen=True)
class ClassesOptions(Options):
    """names: of the classes, by label.

    images: number of images of an example; their pooled features are classified together.
    labels: batch field of the labels.
    ids: batch field that names an example.
    described_by: batch fields that are copied into the records where the data have them.
    loss: cross_entropy; or bce, the binary cross-entropy of each class, averaged over classes and examples (12-in-1).
    box: batch field of the box that a text is about, whose feature is classified too; empty: texts are about whole images.
    """

    names: tuple[str, ...] = ()
    images: int = 1
    labels: str = "labels"
    ids: str = "identifier"
    described_by: tuple[str, ...] = ()
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    box: str = ""

    def check_values(self) -> None:
        require(self.loss in ("cross_entropy", "bce"), "classes.loss", self.loss, "cross_entropy or bce")
        require(self.images in (1, 2), "classes.images", self.images, "1 or 2")
        require(self.images == 1 or not self.box, "classes.images", self.images, f"1 beside classes.box={self.box}")

    def check(self, others: Surroundings) -> None:
        require(len(self.names) > 1, "classes.names", self.names, "the names of two classes or more")
        if self.box:
            require_all_patches(f"classes.box={self.box}", others)


MIXUP_MODES = ("batch", "pair", "elem")


@dataclass(frozen=True)
class ImageClassesOptions(Options):
    """num_classes: size of the head.

    smoothing: the smoothing of the labels, in training.
    global_pool: classify the mean patch token; otherwise the class token.
    mixup, cutmix: the alphas by which training mixes images (Zhang et al. 2018, Yun et al. 2019), 0 = off.
    cutmix_minmax: a range of side lengths, as shares, in place of the alpha of cutmix.
    mixup_prob: probability that a batch is mixed.
    mixup_switch_prob: probability of cutmix where both are on.
    mixup_mode: what shares a mixing ratio: batch, pair or elem.
    """

    num_classes: int = 1000
    smoothing: float = 0.1
    global_pool: bool = True
    mixup: float = 0.0
    cutmix: float = 0.0
    cutmix_minmax: tuple[float, ...] | None = None
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5
    mixup_mode: str = "batch"

    @property
    def mixes(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None

    def check_values(self) -> None:
        require(self.num_classes > 0, "image_classes.num_classes", self.num_classes, "a number of classes")
        require(0 <= self.smoothing < 1, "image_classes.smoothing", self.smoothing, "a share from 0 to below 1")
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            require(alpha >= 0, f"image_classes.{name}", alpha, "0 or more")
        for name in ("mixup_prob", "mixup_switch_prob"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"image_classes.{name}", share, "a share from 0 to 1")
        sides = self.cutmix_minmax
        valid = sides is None or (len(sides) == 2 and 0 <= sides[0] < sides[1] <= 1)
        require(valid, "image_classes.cutmix_minmax", sides, "two shares of the side, the smaller one first, or None")
        require(self.mixup_mode in MIXUP_MODES, "image_classes.mixup_mode", self.mixup_mode, ", ".join(MIXUP_MODES))

    def check(self, others: Surroundings) -> None:
        if self.mixes and others.per_device % 2:
            raise UserError(
                f"per_gpu_batchsize={others.per_device} is odd, but image_classes.mixup and image_classes.cutmix mix "
                "pairs: pass an even number"
            )


@dataclass(frozen=True)
class ChoiceOptions(Options):
    """wrong_texts: number of texts of other images that each image ranks its own text above.

    within: batch field whose value texts of other images share with the own text, such as lang; empty: any texts are drawn.
    wrong_translations: of samples that are pairs of texts, number of wrong second texts in the language of the right one.
    images: 0: the texts are ranked without their images, which are not read.
    hard_texts: number of further texts, in training of images that look alike, which a hard pool names.
    hard_pools: folder of the hard pools; None: each lies beside the tables of its data set.
    wrong_images: 1: an example's own pair is also ranked above its text with another image of the data set.
    candidates: batch field of the texts that an example chooses among, where the data have them.
    label: batch field with the place of the right one among them.
    candidate_tags: batch field with the boxes that the words of the candidates name, where they name any.
    drawn: how many of them training shows, the right one and others at random; 0: all.
    branches: whether the candidates of an example stand in one sequence behind its text and image. They see these and
        themselves alone, and text and image, which do not see them, are encoded once. This is faster, and another model.
    loss: cross_entropy lets the candidates compete; bce judges each apart, averaged over candidates and examples (VL-BERT).
    regions: tokens: the boxes of the image stand behind it as tokens, and words are linked to the boxes that they name.
    classes: whether the token of a box gains the embedding of its object's class, one of COCO's 80 (VL-BERT).
    outlines: whether the feature of a box is the mean of the samples in its object's outline, and not of all in the box.
    records: what the records say of each candidate: ranks or probabilities.
    ids: batch fields that name an example.
    described_by: batch fields that are copied into the records where the data have them.
    """

    wrong_texts: int = 0
    within: str = ""
    wrong_translations: int = 0
    images: int = 1
    hard_texts: int = 0
    hard_pools: str | None = None
    wrong_images: int = 0
    candidates: str = ""
    label: str = "label"
    candidate_tags: str = ""
    drawn: int = 0
    branches: bool = False
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    regions: Literal["", "tokens"] = ""
    classes: bool = False
    outlines: bool = False
    records: Literal["ranks", "probabilities"] = "ranks"
    ids: tuple[str, ...] = ()
    described_by: tuple[str, ...] = ()

    def check_values(self) -> None:
        require(self.loss in ("cross_entropy", "bce"), "choice.loss", self.loss, "cross_entropy or bce")
        require(self.regions in ("", "tokens"), "choice.regions", self.regions, "tokens, or empty for none")
        require(self.records in ("ranks", "probabilities"), "choice.records", self.records, "ranks or probabilities")
        require(self.wrong_texts >= 0, "draw_false_text", self.wrong_texts, "0 or more")
        require(self.wrong_translations >= 0, "choice.wrong_translations", self.wrong_translations, "0 or more")
        require(self.images in (0, 1), "choice.images", self.images, "0 or 1")
        require(self.hard_texts >= 0, "choice.hard_texts", self.hard_texts, "0 or more")
        require(self.wrong_images in (0, 1), "choice.wrong_images", self.wrong_images, "0 or 1")
        require(self.drawn == 0 or self.drawn > 1, "choice.drawn", self.drawn, "2 or more, or 0 for all")

    def check(self, others: Surroundings) -> None:
        if self.candidates and (self.hard_texts or self.wrong_images):
            raise UserError(
                f"choice.hard_texts={self.hard_texts} and choice.wrong_images={self.wrong_images} stand beside texts of "
                f"other images, not beside choice.candidates={self.candidates}: pass 0"
            )
        if self.branches and (self.regions or self.candidate_tags or not self.candidates):
            raise UserError(
                "choice.branches=True goes with texts out of the data (choice.candidates=FIELD) whose words name no boxes: "
                "leave it out"
            )
        if self.regions and not self.candidates:
            raise UserError(
                f"choice.regions={self.regions} goes with texts out of the data: pass choice.candidates=FIELD"
            )
        if (self.classes or self.outlines) and not self.regions:
            key = "classes" if self.classes else "outlines"
            raise UserError(f"choice.{key}=True is about boxes as tokens: pass choice.regions=tokens, or leave it out")
        if self.regions and others.max_image_len != -1:
            raise UserError(
                f"choice.regions={self.regions} reads all patches under a box, and max_image_len={others.max_image_len} "
                "drops some: pass max_image_len=-1"
            )
        if self.within and self.hard_texts:
            raise UserError(
                f"choice.hard_texts={self.hard_texts} draws texts of images that look alike in all languages, and not "
                f"within choice.within={self.within}: pass choice.hard_texts=0"
            )
        if self.wrong_translations and (self.wrong_texts or self.hard_texts or self.wrong_images or self.candidates):
            raise UserError(
                f"choice.wrong_translations={self.wrong_translations} ranks translations, and not beside texts of other "
                "images, wrong images or texts to choose among: leave those out"
            )
        if not self.images and not self.wrong_translations:
            raise UserError(
                "choice.images=0 ranks texts without images, which are then told apart by choice.wrong_translations alone: "
                "pass a number of them, or choice.images=1"
            )
        if self.wrong_texts + self.hard_texts + self.wrong_translations == 0 and not self.candidates:
            raise UserError(
                "loss_names.irtr needs texts of other images, but draw_false_text=0: pass draw_false_text=15"
            )


MERGED = ("union", "any", "first")


@dataclass(frozen=True)
class PointingOptions(Options):
    """candidates: the boxes to choose among: gt, those of the annotation; proposals, those of a detector; proposals+gt; or
        grid, boxes of several sizes all over the image.
    tested_candidates: the boxes in evaluation, where they are others.
    whole_image: the whole image is a candidate too, and the first one, as in 12-in-1 and VL-BERT.
    placement: late: a candidate's score is read from the encoded patches in it; tokens: candidates are tokens beside text
        and patches, and scores are read from their own states.
    judged_by: overlap: a candidate is right that overlaps the target enough; index: the one that the annotation names.
    target: batch field of the boxes that are meant.
    merged: what is meant by several of them: union, the box around all; any; or first.
    index: batch field with the place of the right one among the candidates of the annotation.
    threshold: the intersection over union of a right candidate with its target, at the least.
    above: the overlap has to exceed the threshold (12-in-1).
    iou_plus_one: sides count the pixel at their end (12-in-1, VL-BERT).
    loss: cross_entropy lets the candidates compete; bce judges each apart, averaged over the candidates of an example.
    soft_targets: bce learns the overlap of right candidates, and not 1 (12-in-1).
    box_ids: batch field that names the candidates of the annotation, for the records.
    ids: batch fields that name an example.
    described_by: batch fields that are copied into the records where the data have them.
    """

    candidates: Literal["gt", "proposals", "proposals+gt", "grid"] = "gt"
    tested_candidates: Literal["gt", "proposals", "proposals+gt", "grid"] | None = None
    whole_image: bool = False
    placement: Literal["late", "tokens"] = "late"
    judged_by: Literal["overlap", "index"] = "overlap"
    target: str = "target_boxes"
    merged: Literal["union", "any", "first"] = "union"
    index: str = "answer_index"
    threshold: float = 0.5
    above: bool = False
    iou_plus_one: bool = False
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    soft_targets: bool = False
    box_ids: str = ""
    ids: tuple[str, ...] = ()
    described_by: tuple[str, ...] = ()

    def check_values(self) -> None:
        kinds = ("gt", "proposals", "proposals+gt", "grid")
        require(self.candidates in kinds, "pointing.candidates", self.candidates, ", ".join(kinds))
        tested = self.tested_candidates
        require(tested in (None, *kinds), "pointing.tested_candidates", tested, f"{', '.join(kinds)}, or None")
        require(self.placement in ("late", "tokens"), "pointing.placement", self.placement, "late or tokens")
        require(self.judged_by in ("overlap", "index"), "pointing.judged_by", self.judged_by, "overlap or index")
        require(self.merged in MERGED, "pointing.merged", self.merged, ", ".join(MERGED))
        require(0 < self.threshold <= 1, "pointing.threshold", self.threshold, "a share above 0, at most 1")
        require(self.loss in ("cross_entropy", "bce"), "pointing.loss", self.loss, "cross_entropy or bce")

    def check(self, others: Surroundings) -> None:
        if self.judged_by == "index" and (self.candidates != "gt" or self.tested_candidates not in (None, "gt")):
            raise UserError(
                f"pointing.judged_by=index names a candidate of the annotation, which pointing.candidates="
                f"{self.candidates} and pointing.tested_candidates={self.tested_candidates} leave out: pass gt, or "
                "pointing.judged_by=overlap"
            )
        require_all_patches("pointing", others)
        if self.soft_targets and self.loss != "bce":
            raise UserError("pointing.soft_targets=True needs pointing.loss=bce")


@dataclass(frozen=True)
class RegressOptions(Options):
    """target: batch field of the boxes that are meant.
    merged: what is meant by several of them: union, the box around all; or first.
    threshold, above, iou_plus_one: when a box is right, as in `PointingOptions`.
    ids: batch fields that name an example.
    described_by: batch fields that are copied into the records where the data have them.
    """

    target: str = "target_boxes"
    merged: Literal["union", "first"] = "union"
    threshold: float = 0.5
    above: bool = False
    iou_plus_one: bool = False
    ids: tuple[str, ...] = ()
    described_by: tuple[str, ...] = ()

    def check_values(self) -> None:
        require(self.merged in ("union", "first"), "regress.merged", self.merged, "union or first")
        require(0 < self.threshold <= 1, "regress.threshold", self.threshold, "a share above 0, at most 1")


@dataclass(frozen=True)
class GenerationOptions(Options):
    """target: batch field of the text that is written about the sample's text and image; empty: the sample's text is
        written about its image, which is a caption.
    languages: the languages that texts are written in, as the data name them; empty: one, which is not named.
    max_target_len: tokens of a written text with the [SEP] at its end.
    label_smoothing: the smoothing of the labels, in training.
    beams: texts that the search keeps for each example; 1 is greedy search.
    length_penalty: the exponent of the length by which the search divides scores.
    wrong_images: a test also writes about the images of other examples.
    """

    target: str = ""
    languages: tuple[str, ...] = ()
    max_target_len: int = 32
    label_smoothing: float = 0.1
    beams: int = 5
    length_penalty: float = 1.0
    wrong_images: bool = True

    def check_values(self) -> None:
        require(self.max_target_len > 0, "generation.max_target_len", self.max_target_len, "a number of tokens")
        require(
            0 <= self.label_smoothing < 1,
            "generation.label_smoothing",
            self.label_smoothing,
            "a share from 0 to below 1",
        )
        require(self.beams > 0, "generation.beams", self.beams, "1 or more")
        require(self.length_penalty >= 0, "generation.length_penalty", self.length_penalty, "0 or more")

    def check(self, others: Surroundings) -> None:
        least = self.max_target_len + 4
        if others.max_text_len < least:
            raise UserError(
                f"generation.max_target_len={self.max_target_len} leaves no room for a text to read in "
                f"max_text_len={others.max_text_len}, which counts both: pass max_text_len={least} or more"
            )


@dataclass(frozen=True)
class WordsOptions(Options):
    """described_by: batch fields that are copied into the records where the data have them."""

    described_by: tuple[str, ...] = ()


OPTIONS: dict[str, type[Options]] = {
    "mlm": MLMOptions,
    "mae": MAEOptions,
    "itm": ITMOptions,
    "ttm": TTMOptions,
    "ttc": TTCOptions,
    "itc": ITCOptions,
    "answers": AnswersOptions,
    "classes": ClassesOptions,
    "choice": ChoiceOptions,
    "pointing": PointingOptions,
    "regress": RegressOptions,
    "generation": GenerationOptions,
    "words": WordsOptions,
    "image_classes": ImageClassesOptions,
}


CLASSES: dict[str, type] = {}
"""The class of each kind of objective. `vlc.objectives.kinds` enters ours, and a user's file its own."""

IMAGES_ALONE = ("mae", "image_classes")  # the kinds that do without texts
RANKING = ("choice", "itm", "itc")  # the kinds that can rank images and texts, the better ones first
RANKED_IN_TESTS = ("choice", "itc")  # the kinds whose tests rank without being asked to


def ranking_kind(kinds: Collection[str]) -> str | None:
    """The kind of objective that ranks for a task: the best one that the task has."""
    return next((kind for kind in RANKING if kind in kinds), None)


def check_ranking(kinds: Collection[str]) -> None:
    """Raise UserError where none of the active objectives can rank."""
    if ranking_kind(kinds) is None:
        raise UserError("get_recall_metric=True ranks with the head of irtr, itm or itc: give one of them a weight")


def check_together(options: Mapping[str, Options], kinds: Collection[str], per_device: int) -> None:
    """Raise UserError for options, by kind of objective, that contradict each other; kinds: the active objectives."""
    itc, itm, choice = options["itc"], options["itm"], options["choice"]
    assert isinstance(itc, ITCOptions)
    assert isinstance(itm, ITMOptions)
    assert isinstance(choice, ChoiceOptions)
    if not itc.hard_negatives:
        return
    if "itc" not in kinds or not {"itm", "choice"} & set(kinds):
        raise UserError(
            "hard_negatives=True needs loss_names.itc, and loss_names.itm or loss_names.irtr to train on them"
        )
    if "itm" in kinds and itm.source != "batch":
        raise UserError("hard_negatives=True takes wrong images from the batch, not from false_image_source=dataset")
    if "choice" in kinds and per_device <= choice.wrong_texts:
        raise UserError(
            f"hard_negatives=True takes draw_false_text={choice.wrong_texts} wrong texts from the batch, which has "
            f"only per_gpu_batchsize={per_device}: raise it"
        )
