// docs/how-to/distribute-vouchers.md, run as its reader would: each block of commands by the shell,
// each block of JSON against what the commands before it said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

struct Block {
  std::string language, text;
};

std::vector<Block> blocks_of(const std::string& page) {
  std::vector<Block> blocks;
  for (std::size_t at = page.find("```"); at != std::string::npos; at = page.find("```", at)) {
    const auto line = page.find('\n', at), end = page.find("```", line);
    blocks.push_back({page.substr(at + 3, line - at - 3), page.substr(line + 1, end - line - 1)});
    at = end + 3;
  }
  return blocks;
}

TEST(VoucherPage, VOUCHER_2_every_block_of_the_page_does_what_the_page_says) {
  testing_support::TempFolder folder;
  const std::string binary = SLUICE_BINARY;
  const auto blocks = blocks_of(read_file(std::string(SLUICE_SOURCE_DIR) + "/docs/how-to/distribute-vouchers.md"));
  ASSERT_GT(blocks.size(), 9u);
  std::unique_ptr<Serving> serving;
  std::string said;
  int answers = 0;
  for (const auto& block : blocks) {
    if (block.text == "sluice serve\n") {
      serving = std::make_unique<Serving>(folder.path());
      ASSERT_FALSE(serving->token().empty()) << read_file(folder.file("server.err"));
    } else if (block.language == "sh") {
      std::ofstream script(folder.file("block.sh"));
      script << "set -e\nexport PATH='" << binary.substr(0, binary.rfind('/')) << "':\"$PATH\"\n";
      if (serving) script << "export SLUICE_SERVER=" << serving->address() << " SLUICE_TOKEN=" << serving->token() << "\n";
      script << block.text;
      script.close();
      ASSERT_EQ(std::system(("cd '" + folder.path() + "' && bash block.sh > said 2> told").c_str()), 0)
          << block.text << read_file(folder.file("told")) << read_file(folder.file("said"));
      said = read_file(folder.file("said"));
    } else if (block.language == "json") {
      EXPECT_EQ(nlohmann::json::parse(said, nullptr, false), nlohmann::json::parse(block.text, nullptr, false)) << said;
      ++answers;
    }
  }
  EXPECT_EQ(answers, 3);
}

}  // namespace
}  // namespace sluice::cli_test
