"""Word lists for the story grammar: who, where, what. Data only; cast.py and stories.py draw from it."""

GIRLS = """Mia Lily Anna Sara Emma Nora Ruby Clara Elsie Hana Zoe Ivy Lucy Maya Rosa Tess Ella Alice Wren Daisy Nina
Freya Pearl June Molly Iris Lena Amina Greta Poppy Sofia Leila Kira Marta Olga Tilly""".split()
BOYS = """Tom Ben Max Leo Sam Finn Jack Oscar Hugo Eli Noah Theo Milo Omar Felix Luca Peter Henry Toby Ravi Carl Arlo
Jonas Amir Owen Kofi Emil Nico Paul Simon Victor Walter Yusuf Anton Denis Lars""".split()
ANIMAL_NAMES = """Pip Rusty Bramble Hazel Dot Clover Patch Bean Maple Pepper Nutmeg Willow Biscuit Fern Acorn Button
Juniper Moss Pebble Ginger Tumble Snowy Barley Plum Sunny Whisker Cricket Olive Thistle Waffles""".split()
ANIMALS = """fox rabbit bear mouse owl hedgehog squirrel frog duck badger otter kitten puppy turtle beaver lamb
sparrow goat piglet mole deer penguin""".split()
ADULTS = ["mother", "father", "grandmother", "grandfather", "aunt", "uncle"]

TRAITS = """curious kind brave shy clever cheerful gentle quiet lively stubborn careful dreamy friendly playful patient
honest busy merry""".split()

# place, preposition, two things one sees there
PLACES = [
    ("village", "in", ("red roofs", "a stone well")), ("forest", "in", ("tall pines", "soft moss")),
    ("valley", "in", ("green meadows", "a slow river")), ("farm", "on", ("a big barn", "golden fields")),
    ("hill", "on", ("wild flowers", "an old oak tree")), ("town", "in", ("narrow streets", "a busy market")),
    ("island", "on", ("white sand", "a tall lighthouse")), ("garden", "in", ("apple trees", "a crooked fence")),
    ("mountain", "on", ("snowy rocks", "a thin winding path")), ("seaside town", "in", ("fishing boats", "noisy gulls")),
    ("meadow", "in", ("tall grass", "a thousand daisies")), ("wood", "in", ("birch trees", "a tiny stream")),
]
PLACE_ADJECTIVES = ["small", "quiet", "sunny", "green", "faraway", "pretty", "peaceful", "windy", "little", "misty"]
HOMES = ["a small house", "a cosy cottage", "a house with a blue door", "a little home under an old tree",
         "a warm home near the mill", "a round house by the road", "a wooden house with a red roof"]
ANIMAL_HOMES = ["a cosy burrow", "a snug den", "a little home under an old tree", "a warm hole between the roots",
                "a tiny house made of twigs", "a soft nest of leaves", "a hollow log by the path"]

COLOURS = ["red", "blue", "green", "yellow", "silver", "golden", "purple", "orange", "white", "brown"]
TREASURES = ["ball", "hat", "kite", "scarf", "button", "drum", "whistle", "bell", "ribbon", "lantern", "marble", "key",
             "book", "spoon", "boat", "music box", "feather", "mitten", "basket", "compass"]
HIDING = ["under a big stone", "behind the barn", "in the long grass", "beside the pond", "under a pile of leaves",
          "behind the old shed", "in the hollow tree", "on top of the wall", "between two stones", "under the bridge",
          "inside an old boot", "in the vegetable patch"]
SEARCHED = ["under the table", "behind the door", "in the kitchen", "near the gate", "along the path", "by the well",
            "in the barn", "under the bushes", "at the edge of the field", "around the big rock"]
FOODS = ["bread", "honey cakes", "apple pie", "soup", "berries", "pancakes", "nut cookies", "cheese", "plums",
         "warm milk", "pumpkin pie", "jam tarts", "roasted chestnuts", "pears"]
FEARS = [
    ("the dark", "when the lamp went out"), ("thunder", "when black clouds came over the hill"),
    ("deep water", "when the others jumped into the lake"), ("high places", "when the others climbed the tall tree"),
    ("the old bridge", "when the path led over the river"), ("loud noises", "when the big drums began to play"),
    ("speaking to strangers", "when someone new came to the door"), ("the big dog", "when it barked behind the fence"),
]
PROJECTS = [
    ("boat", "planks and rope", "sink", "float on the pond"), ("kite", "paper and string", "fall down", "fly above the trees"),
    ("treehouse", "boards and nails", "wobble", "stand firm in the oak"),
    ("cart", "a box and four wheels", "lose a wheel", "roll all the way down the lane"),
    ("bridge", "logs and vines", "break in the middle", "reach the other side of the stream"),
    ("snow castle", "snow and ice", "fall over", "stand tall until spring"),
    ("windmill", "sticks and cloth", "stand still", "turn in the wind"),
    ("bird house", "bark and straw", "tip over", "hang safely from a branch"),
]
PLANTS = [("sunflower", "seed"), ("pumpkin", "seed"), ("apple tree", "seed"), ("rose", "cutting"), ("tulip", "bulb"),
          ("bean", "seed"), ("strawberry", "plant"), ("cherry tree", "stone")]
QUESTS = ["the end of the rainbow", "the sea", "the top of the mountain", "the singing stone", "the oldest tree in the land",
          "the place where the sun sleeps", "the silver lake", "the first snow", "the great waterfall", "the valley of fireflies"]
GUIDES = ["an old turtle", "a wise owl", "a friendly shepherd", "a grey heron", "a travelling baker", "a sleepy toad",
          "a woman with a donkey", "a boy with a flute"]
SMALL_ANIMALS = ["bird", "kitten", "butterfly", "baby hedgehog", "duckling", "bee", "snail", "baby rabbit", "puppy", "bat"]
TRAPS = ["was caught in a thorn bush", "had fallen into a deep hole", "was stuck in the mud", "had hurt its leg",
         "was sitting all alone in the rain", "was trapped under a branch", "could not find its mother"]
SOUNDS = ["a strange scratching", "a deep hum", "a soft knocking", "a long low howl", "a rattling noise",
          "a funny squeak", "heavy footsteps", "a splash", "a whistle"]
MONSTERS = ["giant", "dragon", "troll", "big shadow", "hairy creature", "ghost"]
CONTESTS = ["the race around the lake", "the singing contest", "the baking contest", "the swimming race",
            "the sled race", "the drawing contest", "the great jumping game", "the kite contest"]
BROKEN = ["vase", "window", "blue cup", "flower pot", "old clock", "plate", "lamp", "jar of honey"]
CULPRITS = ["the cat", "the wind", "a bird", "nobody", "the neighbour's dog"]
GIFTS = ["a warm blanket", "a cake with candles", "a wooden flute", "a pair of new boots", "a paper crown",
         "a painted box", "a little clay bird", "a jar of honey", "a woollen hat", "a swing made of rope"]
WEATHER = ["the sun was shining", "a soft rain was falling", "the wind was blowing", "the air smelled of snow",
           "the sky was clear and blue", "fog lay over the fields", "the birds were singing", "the leaves were falling"]
SKY_END = ["The stars came out one by one", "The moon rose over the hill", "The sun went down behind the trees",
           "The evening was warm and still", "A soft wind moved the leaves", "Far away a bell was ringing"]
LESSONS = {
    "lost": ["a thing is found faster when two look for it", "good friends help each other", "it helps to keep looking"],
    "fear": ["being brave means trying even when you are afraid", "fear grows small when you look at it",
             "a friend makes the dark less dark"],
    "share": ["shared food tastes best", "there is more joy in giving than in keeping", "sharing makes everyone happy"],
    "friend": ["a smile can be the start of a friendship", "everyone is a stranger only once", "a friend is worth more than gold"],
    "rescue": ["even small hands can do great things", "a kind act is never forgotten", "kindness always comes back"],
    "build": ["nobody learns without mistakes", "you should never give up too soon", "the second try is often the best one"],
    "contest": ["winning is not everything", "slow and steady is a good way to go", "helping others is better than any prize"],
    "truth": ["the truth is easier to carry than a lie", "it is brave to say sorry", "telling the truth makes the heart light"],
    "quest": ["the way there is as good as the end", "the best treasures can be seen by everyone", "home is sweetest after a long walk"],
    "party": ["the best surprise is one made with love", "nobody is forgotten by true friends", "a happy day is made by friends"],
    "seed": ["good things need time", "patience makes things grow", "a little care every day goes a long way"],
    "monster": ["things are often less scary than they seem", "you should not judge by looks", "a big voice can hide a soft heart"],
    "care": ["a warm word is the best medicine", "love is in small things", "helping at home is a gift"],
    "home": ["it is wise to stay on the path", "there is always someone who can help", "home is where they wait for you"],
}
